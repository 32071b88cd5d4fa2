"""The words of the scanned minutes, typed as in 1976; the scan itself has no text layer."""

MINUTES: list[str] = [
    """\
         MILL MEADOW ALLOTMENT SOCIETY

   Minutes of the committee meeting held in the
   tool shed on Saturday, 26 June 1976, at 4 p.m.


   Present:  Mr. H. Calder (chairman)
             Mrs. E. Pruitt (treasurer)
             Miss D. Lowe, Mr. A. Fenn,
             Mr. S. Okafor

   1. Minutes of the last meeting were read and
      signed.

   2. THE DROUGHT.  The chairman reported that no
      rain had fallen for thirty-four days.  The
      waterworks has cut the supply to two hours
      in the evening.  Beans and lettuce are lost
      on the upper plots.

      It was RESOLVED to build a tank for rain
      water behind the tool shed, of brick, four
      metres by three and one and a half deep.
      Each member to dig on two Saturdays and to
      give three crowns for cement.

   3. HENS.  Mr. Fenn's hens have again been seen
      on plot 17.  Mr. Fenn said that the fence
      is not his.  The fence was discussed for
      some time.
""",
    """\
                     - 2 -

   4. TREASURER'S REPORT.

      In hand on 1 April ............  61.40
      Rents received, 52 plots ...... 104.00
      Sale of manure ................  18.50
                                      ------
                                      183.90
      Lock for the gate .............   4.25
      Seed potatoes, 6 sacks ........  39.00
      Prizes, flower show ...........  12.75
                                      ------
      Balance ....................... 127.90

   5. FLOWER SHOW.  To be held on 21 August in
      the school hall.  Classes: sweet peas,
      dahlias, the heaviest marrow, a plate of
      five onions, and jam made by a child.
      Judge: Dr. Marchetti, if his leg allows.

   6. BONFIRES.  Forbidden until it rains.  A
      notice is to be nailed to the gate.

   7. ANY OTHER BUSINESS.  Miss Lowe asked who
      had borrowed the long ladder.  Nobody
      answered.

      The meeting closed at twenty to six.

      Signed:    H. Calder
""",
    """\
         MILL MEADOW ALLOTMENT SOCIETY

   To all members                  3 July 1976


              WATER TANK - ROTA FOR DIGGING

   10 July   plots  1 to 13    bring spades
   17 July   plots 14 to 26    bring barrows
   24 July   plots 27 to 39    bricks arrive
   31 July   plots 40 to 52    mortar, buckets

   Work begins at 7 a.m. before the heat.  Mrs.
   Pruitt will bring lemonade.

   Whoever cannot come sends a strong nephew.

   The roof of the shed is 38 square metres.  A
   night of good rain (10 mm) gives 380 litres;
   the tank holds eighteen thousand.  It will
   take a winter to fill.

   Please return the long ladder.

                     The Committee
""",
]
